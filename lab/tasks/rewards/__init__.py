"""What scores a completion: answers that match, and a reward function of the user's own."""
