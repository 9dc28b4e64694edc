"""The sentences around the dates: what a person who keeps books, parcels or patients writes.

Templates and fillers are in two disjoint sets, one to learn from and one to be asked about.
Training also draws sentences of invented words, so that the model reads the date, not the style.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping

from sample_jobs.training.date_styles import MONTHS, Split

TEMPLATES: Mapping[Split, tuple[str, ...]] = {
    "training": (
        "Invoice {code} was issued on {date}.",
        "Invoice {code} dated {date} is still unpaid.",
        "invoiced on {date}",
        "Payment of {money} received {date}",
        "{company} paid {money} on {date} for {count} {item}.",
        "{date}: {count} {item} shipped to {place}",
        "We shipped {count} {item} from {place} on {date}.",
        "Delivery note {code}, {date}, {company}",
        "{person} signed the contract on {date}.",
        "The contract with {company} ends on {date}.",
        "{person} was born on {date} in {place}.",
        "born {date}",
        "Born in {place}, {date}; patient no. {code}",
        "Patient {person} was admitted on {date} to ward {count}.",
        "{person}, room {count}, discharged {date}",
        "Next appointment with {person}: {date} at {clock}.",
        "The meeting in {place} is on {date} at {clock}.",
        "Please call {person} back before {date}.",
        "Valid until {date}",
        "This offer of {money} is valid until {date}.",
        "Best before {date}, lot {code}",
        "{item}, lot {code}, made {date} in {place}",
        "Ticket {code} opened {date} by {person}",
        "ticket {code} closed on {date} after {count} days",
        "As of {date}, {company} owes us {money}.",
        "On {date} {company} opened an office in {place}.",
        "{company} was founded on {date} by {person} with {money}.",
        "Order {code} placed {date}: {count} x {item}",
        "Order no. {code} of {date} was cancelled by {company}.",
        "{count} {item} were returned on {date} by {person}.",
        "The last update was on {date}.",
        "last seen {date} near {place}",
        "Rent of {money} due {date} for flat {count}",
        "Your card ending in {count} expires on {date}.",
        "Flight {code} to {place} leaves on {date} at {clock}.",
        "Train {code} from {place}, {date}, seat {count}",
        "Registered on {date} under number {code}",
        "Received {date}; checked by {person}; {count} pages",
        "Since {date} {person} has worked for {company}.",
        "{person} left {company} on {date}.",
        "The {item} arrived at {clock} on {date}, {count} of them broken.",
        "Meter reading {count} taken {date} by {person}",
        "The warranty on the {item} began {date} and costs {money}.",
        "Letter from {person} to {company}, {date}",
        "Minutes of {date}, present: {person} and {count} others",
        "Date of birth: {date}",
        "date: {date}, amount: {money}, ref: {code}",
        "Re: {item} ({code}), {date}",
        "{code} | {date} | {company} | {money}",
        "{person};{date};{count};{place}",
        "[{date}] {company}: {item}",
        "({date}) {person} moved to {place}",
        "{money} from {company} on {date}, ref {code}",
        "Paid {date}",
        "{date}",
        "{date} - {item}",
        "{item} - {date}",
        "It was {date} when {person} reached {place}.",
        "Nobody at {company} remembers what happened on {date}.",
        "The sale of {count} {item} closed {date} at {money} in {place}.",
    ),
    "held_out": (
        "Statement {code} was sent out on {date}.",
        "Reminder: {money} is overdue since {date}.",
        "{company} ordered {count} {item} on {date}, see {code}.",
        "Our records show that {person} visited {place} on {date}.",
        "{person} joined the club on {date} as member {count}.",
        "Certificate {code} was granted to {person} {date}.",
        "{date}, {place}: {count} {item} found",
        "The {item} must be back by {date} or we charge {money}.",
        "Refund of {money} booked {date}, case {code}",
        "Passport no. {code}, issued {date}, {place}",
        "The lease for unit {count} starts {date}.",
        "Photograph of {person}, taken on {date} at {clock}",
        "{place}, {date}. Dear {person}, thank you for the {item}.",
        "Entry {count}: {item}, bought {date}, {money}",
        "{person} / {company} / {date} / {code}",
        "The bridge near {place} was closed on {date} at {clock}.",
        "Vaccinated on {date}, batch {code}, by {person}",
        "Sample {code} collected {date}, depth {count} m",
        "On {date} the price of {item} rose to {money}.",
        "subscription of {person} renewed {date} for {money}",
        "Policy {code} lapsed on {date}.",
        "{count} {item} left the {place} warehouse on {date}.",
        "Hired: {person}, {date}",
        "We last heard from {company} on {date}.",
    ),
}

FILLERS: Mapping[str, Mapping[Split, tuple[str, ...]]] = {
    "company": {
        "training": (
            *("Northgate Ltd", "Harbour & Sons", "Alder Foods", "Kestrel Freight", "Bluefin AG"),
            *("Summit Tools", "Oak Lane Bakery", "Mayer Optics", "Delta Print", "Juniper Bank"),
            *("Octavia Textiles", "Marchetti SpA", "Decker Glass", "Augustin GmbH", "Red Barn Co."),
            *("Silverline 24", "Studio 54", "Novak Brothers", "Febris Pharma", "Quick Parcel"),
        ),
        "held_out": (
            *("Brightwater Inc.", "Sable Motors", "Tern & Co", "Granite Dairy", "Hollis Pumps"),
            *("Cedar Street Books", "Vega Ceramics", "Maynard Steel", "Pier 39 Fish", "Lumen Labs"),
        ),
    },
    "person": {
        "training": (
            *("Anna Berg", "Mr Okafor", "Dr. Lindqvist", "April Jones", "Tom Becker", "Mrs Silva"),
            *("June Park", "Ravi Menon", "August Klein", "Li Wei", "Maya Torres", "J. Marchand"),
            *("Oscar Novak", "Ms Decourt", "Prof. Hale", "Ines Duarte", "Sam Juliano", "K. Ito"),
        ),
        "held_out": (
            *("Clara Voss", "Mr Adeyemi", "Dr. Petrov", "May Collins", "Hugo Brandt", "N. Salah"),
            *("Julia Octavio", "Mrs Marsh", "Ben Whitaker", "Yuki Tanaka", "E. Lindgren"),
        ),
    },
    "item": {
        "training": (
            *("boxes", "pumps", "steel rods", "printers", "crates of wine", "chairs", "valves"),
            *("copper wire", "lamps", "winter coats", "bags of flour", "used tyres", "seedlings"),
            *("notebooks", "bicycle", "laptop", "violin", "kettle", "spare parts", "oil drums"),
        ),
        "held_out": (
            *("window frames", "coffee beans", "ladders", "tablets", "microscope", "roof tiles"),
            *("jars of honey", "cables", "sewing machine", "garden tools", "batteries"),
        ),
    },
    "place": {
        "training": (
            *("Oslo", "Lyon", "Graz", "Porto", "Leeds", "Osaka", "Quito", "Lagos", "Boston"),
            *("the north depot", "Ghent", "Utrecht", "Marseille", "Augsburg", "Decatur"),
        ),
        "held_out": (
            *("Turin", "Malmo", "Bergen", "Cork", "Nairobi", "Denver", "Maribor", "Basel"),
            *("the old mill", "Sapporo", "Julianadorp"),
        ),
    },
}

_ONSETS = (*"bcdfghjklmnprstvwyz", "", "st", "tr", "pl", "sh", "ch", "gr", "br", "th", "qu")
_CODAS = (*"dgklmnprstxy", "", "nd", "ll", "rs", "st", "ng", "ck", "th", "es", "ed")
_VOWELS = ("a", "e", "i", "o", "u", "a", "e", "i", "o", "u", "ea", "oo", "io", "ou")
_SMALL_WORDS = (
    *("on", "of", "the", "by", "at", "in", "for", "is", "until", "since", "and", "we", "was"),
    *("to", "from", "that", "with", "has", "had", "an", "it", "as", "a", "were", "see", "no."),
)


def _invented_word(rng: random.Random) -> str:
    if rng.random() < 0.06:
        # Names such as May Collins or Octavia: a month's name that is no part of the date.
        month = rng.choice(MONTHS)
        return rng.choice((month, month[:3] + rng.choice(_VOWELS) + rng.choice(_CODAS)))
    word: str = "".join(
        rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(rng.randrange(1, 4))
    )
    word += rng.choice(("", *_CODAS))
    return rng.choice((word, word, word.capitalize()))


def _plain_word(rng: random.Random) -> str:
    if rng.random() < 0.35:
        return rng.choice(_SMALL_WORDS)
    return _invented_word(rng)


def _code(rng: random.Random) -> str:
    # At most six digits in a row: eight could be read as a compact date.
    digits = str(rng.randrange(10 ** rng.randrange(2, 6), 10**6))
    letters = "".join(rng.choice("ABCDEFGHKLMNPRSTUVWX") for _ in range(rng.choice((1, 2, 2, 3))))
    forms = (
        digits,
        f"#{digits}",
        f"{letters}-{digits}",
        f"{letters}{digits}",
        f"{digits}{letters}",
    )
    return rng.choice((*forms, f"{letters}-{rng.randrange(10, 100)}-{rng.randrange(100, 10000)}"))


def _money(rng: random.Random) -> str:
    amount = rng.choice((rng.randrange(5, 1000), rng.randrange(1000, 100000)))
    figure = f"{amount:,}" + rng.choice(("", f".{rng.randrange(100):02d}"))
    return rng.choice((f"EUR {figure}", f"${figure}", f"{figure} EUR", f"{figure} dollars"))


def _count(rng: random.Random) -> str:
    return str(
        rng.choice((rng.randrange(2, 13), rng.randrange(13, 100), rng.randrange(100, 10000)))
    )


def _clock(rng: random.Random) -> str:
    hour, minute = rng.randrange(24), rng.choice((0, 15, 30, 45, rng.randrange(60)))
    return rng.choice((f"{hour:02d}:{minute:02d}", f"{hour}:{minute:02d}", f"{hour % 12 + 1} pm"))


_NUMBERS: Mapping[str, Callable[[random.Random], str]] = {
    "code": _code,
    "money": _money,
    "count": _count,
    "clock": _clock,
}


def _fill(slot: str, rng: random.Random, split: Split) -> str:
    if slot in _NUMBERS:
        return _NUMBERS[slot](rng)
    if split == "training" and rng.random() < 0.4:
        return " ".join(_invented_word(rng) for _ in range(rng.choice((1, 1, 2))))
    return rng.choice(FILLERS[slot][split])


def from_template(date_text: str, rng: random.Random, split: Split) -> str:
    """A sentence of the split's own templates and fillers, with the date in its place."""
    template = rng.choice(TEMPLATES[split])

    def replace(match: re.Match[str]) -> str:
        return date_text if match[1] == "date" else _fill(match[1], rng, split)

    return re.sub(r"\{(\w+)\}", replace, template)


def from_invented_words(date_text: str, rng: random.Random) -> str:
    """A sentence that means nothing: invented words, numbers of all kinds, and the date."""

    def stretch() -> list[str]:
        words = []
        for _ in range(rng.choice((0, 0, 1, 2, 3, 5))):
            if rng.random() < 0.35:
                words.append(rng.choice(tuple(_NUMBERS.values()))(rng))
            else:
                words.append(_plain_word(rng))
            words[-1] += rng.choice(("", "", "", "", "", ",", ";", ":", " /"))
        return words

    # A bare number beside the date could be read as part of it, so a word stands between them.
    before, after = stretch(), stretch()
    before += [_plain_word(rng)] if before else []
    after = [_plain_word(rng), *after] if after else []
    return " ".join((*before, date_text, *after)) + rng.choice(("", "."))
