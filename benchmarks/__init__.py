# SPDX-License-Identifier: MIT
"""Side-by-side runs against peers, and checks that need a whole machine."""
