"""How the shipped model and its preference pairs are made."""
