"""The operator's door: the JSON API, who may use it, and its description."""
