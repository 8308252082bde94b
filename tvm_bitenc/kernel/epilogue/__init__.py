"""What becomes of the sums of a tile; `contract.Epilogue` says what each class offers."""
