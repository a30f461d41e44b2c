# SPDX-License-Identifier: Apache-2.0
"""Child processes with limits: the bytes between, the child's side, the parent's side."""
