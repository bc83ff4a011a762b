"""The world model: a backbone over the one vocabulary, a learned switch, and continuous latents beside the codes.

The parts carry the names of "Critiques of World Models" (Xing, Deng, Hou, Hu; 2025): the state s is what an encoder h
(the tokenizers) makes of an observation o; the backbone f predicts the next state given the action a; a decoder g
(the tokenizers again) turns states into observations.
"""
