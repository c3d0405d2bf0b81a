"""What a completion is worth: plain functions of an example and a text, and their sum."""
