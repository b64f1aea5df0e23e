"""Reports written by language models, from the finding table and from what an encoder saw.

====================  ===============================================================================================
file                  what
====================  ===============================================================================================
``families``          the model families, and which of their layers LoRA changes
``basefolder``        a folder with a language model, checked from its headers
``adapterfolder``     a folder with a LoRA adapter, held against the model it shall change
``folder``            our folder around both: base, adapter, projector, settings
``boundfiles``        the files of such a folder, and that they are the right ones
``memory``            what loading will take, and refusing what does not fit
``prompt``            the finding table as the lines a model is asked with
``answer``            what a model wrote, taken apart: thoughts, report, labels
``identity``          hashes of models of many files
``tokens``            text as numbers and back
``projector``         an encoder's features as tokens of a language model
``lora``              adapters: made, saved, loaded, merged
``loading``           all of it loaded, strictly
``sequences``         what a model reads: pictures, prompts, answers, padding
``decode``            token after token, greedily
``engine``            `write_report`: the engine ``llm``
``textencoder``       one vector for each finding's prompt
``asking``            the question to a model, with the picture where it reads one
``reasonfolder``,     the open vision-language model NV-Reason-CT: its folder, its picture
``reason``
``packages``          transformers and peft, imported when they are needed
====================  ===============================================================================================

Files above ``tokens``, and ``reasonfolder``, need neither torch nor transformers. Code out of a model's folder is never
run. Research use only: what a model writes goes through `CTReportLib.guard` before anybody sees it.
"""
