"""The commands of `mstar-pl` that are not training; each imports what is heavy when it runs."""
