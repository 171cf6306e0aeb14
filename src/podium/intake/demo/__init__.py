"""The embedded demo competition: lemons to grade, rendered on the spot, with a truth on record.

    spec   what is asked for: seed, counts, size
    plan   what one photo shows (pose, light, defects, decoys) and so its true grade; no pixels
    noise, scene, lemon, photo   plan -> pixels -> JPEG bytes
    write  the competition's folder
    score  submission.csv -> figures, the truth recomputed

Everything is a pure function of (seed, split, index), so no file has to hold the test labels.
"""
