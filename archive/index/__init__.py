# SPDX-License-Identifier: Apache-2.0
"""The index: what is stored, findable. It can be rebuilt from storage."""
