"""What the servers share: whom they answer, how much at once, and for how long they wait."""
