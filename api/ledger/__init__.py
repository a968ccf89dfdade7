"""What the service derives from the ledger and proves from it: statistics, receipts, claims."""
