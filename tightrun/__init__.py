"""tightrun: run a large offline LLM job to its end on the hardware at hand."""
