"""Rendered rooms with exact masks, for the classes that the training photographs hardly hold."""
