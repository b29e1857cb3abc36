"""Which encoder channels the experts of a network rely on, tested against chance. Needs torch."""
