"""What prompts are made of: files and a world made here, as examples; their order and wording."""
