"""What the ``densemask`` command can do: a module a group of commands. Heavy imports wait inside the functions."""
