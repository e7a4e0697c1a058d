"""What the bench programs share: timing, memory, breakdown by module, workloads, tables."""
