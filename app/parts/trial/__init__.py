"""What the page of one trial draws, a part a file."""
