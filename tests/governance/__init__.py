"""Tests of who may have what done: policy, approvals."""
