"""What several passes ask of the graph: values, levels, steps and shapes. Nothing is changed."""
