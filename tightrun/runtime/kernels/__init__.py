"""Attention kernels in C++, built on first use with the machine's own compiler."""
