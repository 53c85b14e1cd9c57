"""Result tables of the chapters on distributions."""
