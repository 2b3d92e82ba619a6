"""What is kept outside the store: the ledger of sealed receipts."""
