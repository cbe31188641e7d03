"""The series index: our derived file for one series, its metadata ready to send and its pixels located.

splice.py   compressed pieces that may follow one another in one body (gzip, zstd)
layout.py   the file byte by byte: header, records, sections
writer.py   builds a file, atomically
reader.py   opens a file by mmap and answers from it
found.py    what reading an unproven instance found out, remembered beside a quick index
"""
