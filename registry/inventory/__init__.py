"""What runs, and on which of our images: sources → running images → bases and what is wrong with them."""
