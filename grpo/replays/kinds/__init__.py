"""What stages that can be made again differ in, a file for each kind."""
