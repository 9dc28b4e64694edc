"""What is read and written: job files, input shards, output folders. No torch."""
