"""What becomes of a file that came in: the decision, the seven actions, the journal that undoes them."""
