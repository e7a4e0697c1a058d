"""What is made of results: the matrix of runs, latency curves, pictures, cuts."""
