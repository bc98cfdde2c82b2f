"""Jobs of a recogniser on an executor: training, predictions and evaluation.

===============  ================================================================
``request``      :class:`~fruits.recogniser.jobs.request.Training`
``classes``      the file that maps labels to classes
``sources``      outputs with features, and image folders, which are featurized
``summaries``    class moments and samples of a source, merged level by level
``thumbnails``   pictures of training images
``train``        training
``predict``      predictions
``evaluate``     evaluation
===============  ================================================================
"""
