"""How the sums of a tile are made; `contract.Product` says what each class offers."""
