"""Tests in a real Airflow. A package, so that what they share ends with the last of them, and not
with the test run.
"""
