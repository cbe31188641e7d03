"""The series index: our derived file for one series, its metadata ready to send and its pixels located.

splice.py   compressed pieces that may follow one another in one body (gzip, zstd)
layout.py   the file byte by byte: header, records, sections
writer.py   builds a file, atomically
reader.py   opens a file by mmap and answers from it
tail.py     reads the header of a file that lies in a bucket, from its end
rerooting.py   writes the same file with links of another service root
found.py    what reading an unproven instance found out, remembered beside a quick index
"""
