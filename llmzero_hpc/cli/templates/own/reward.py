"""The reward of a response. Called once for each response, with keywords, as VeRL does."""


def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    """Return a number (or a dict with "score"): here 1.0 if the last word is the answer, else 0.0."""
    words = solution_str.split()
    return float(bool(words) and words[-1].strip(".") == ground_truth)
