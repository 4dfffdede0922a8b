"""What is done to pictures between file and network, each with the way back where a result must find it."""
