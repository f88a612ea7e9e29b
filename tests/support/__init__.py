"""What the attack rehearsals and their short forms in the suite share."""
