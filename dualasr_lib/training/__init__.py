"""Training mechanisms that know no speech: optimiser, schedule, averages, checkpoints, loop."""
