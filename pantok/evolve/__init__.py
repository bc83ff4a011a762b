"""A vocabulary that lives: growing, composing, merging, pruning, each judged by what it does to prediction."""
