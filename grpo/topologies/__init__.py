"""What a compiler says of a run's programs for chips that are not there: times, bytes, advice."""
