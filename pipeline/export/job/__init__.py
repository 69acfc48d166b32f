"""An export from its selection to its files: names, parts that a later call takes up, and the run over all shards."""
