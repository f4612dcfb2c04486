"""What a person sees: durations, bars, the first lines of a run."""
