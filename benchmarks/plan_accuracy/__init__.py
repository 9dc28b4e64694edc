"""Does the plan tell the truth? Predicted speeds against measured ones, and the plan that was
chosen against others that were possible. `python -m benchmarks.plan_accuracy --help`
"""
