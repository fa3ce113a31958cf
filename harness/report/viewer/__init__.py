"""The questions of a table one by one: what was asked, with its pictures, and what every row answered.

A page with its data beside it, for a browser without a network or a server. The page holds the names of rows and columns;
a column's questions, the answers' texts (in parts) and the pictures are files of their own, loaded when they are looked at.
Whether an answer is right was decided by the evaluation; nothing is judged here.
"""
