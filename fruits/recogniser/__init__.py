"""The recogniser: trained from class moments and a bounded sample of rows; confidences, or a rejection.

==============  ==================================================================
``products``    products, softmax and k-means with the same bits on every CPU
``recogniser``  :class:`~fruits.recogniser.recogniser.Recogniser`, the public class
``files``       the files of a recogniser
==============  ==================================================================
"""
