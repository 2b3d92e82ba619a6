"""Tests of policy and approvals."""
