"""What the answers mean: fates, the account of everything sent, the audit, the verdict. Pure."""
