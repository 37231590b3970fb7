"""What callers send and get: arguments, names, events, answers, cancellations. Pure."""
