"""The functions of builtin.py as LLVM IR text. What it calls is in CPython's limited API.

Words in capitals are numbers of the interpreter at hand, see `builtin.WORDS`.
"""

TEXT = r"""
@_Py_TrueStruct = external global i8
@_Py_FalseStruct = external global i8
@PyDict_Type = external global i8
declare void @Py_IncRef(ptr)
declare ptr @PyLong_AsVoidPtr(ptr)
declare ptr @PyLong_FromLong(i64)
declare ptr @PyEval_SaveThread()
declare void @PyEval_RestoreThread(ptr)
declare ptr @PyDict_GetItemWithError(ptr, ptr)
declare i64 @PyDict_Size(ptr)
declare ptr @PyList_GetItem(ptr, i64)
declare i64 @PyList_Size(ptr)
declare i32 @PyDict_Next(ptr, ptr, ptr, ptr)
declare i64 @PyObject_Size(ptr)
declare void @PyErr_Clear()
declare ptr @PyLong_FromVoidPtr(ptr)
declare ptr @PyType_GenericAlloc(ptr, i64)
declare ptr @PyBytes_FromStringAndSize(ptr, i64)
declare i32 @PyObject_SetAttr(ptr, ptr, ptr)
declare void @Py_DecRef(ptr)
declare void @PyErr_BadInternalCall()
declare i32 @gt_run(ptr)

define ptr @gt_launch(ptr %self, ptr %number) nounwind {
  %frame = call ptr @PyLong_AsVoidPtr(ptr %number)
  %thread = call ptr @PyEval_SaveThread()
  %status = call i32 @gt_run(ptr %frame)
  call void @PyEval_RestoreThread(ptr %thread)
  %wide = sext i32 %status to i64
  %result = call ptr @PyLong_FromLong(i64 %wide)
  ret ptr %result
}

; self: a bytes object, in which rows of five words begin at OFFSET:
; what is asked, a container, a key of it, a key of what is there, what is expected
;
; GROUP begins the rows of one dictionary: what, it, how many MORE rows follow at once, where in
; the table its rows end, and its tag when they last held; each of the MORE rows names a dictionary
; in it and its tag. While all the tags are the same nothing has changed, and the rows are passed
; over. Tags are noted before the rows are looked at: what changes meanwhile is seen the next time.
; LINK says that the dictionary that MORE names is still there: where it is not, tags say nothing.
define ptr @gt_holds(ptr %self, ptr %none) nounwind {
entry:
  %at = alloca i64, align 8
  %key.out = alloca ptr, align 8
  %value.out = alloca ptr, align 8
  %table = getelementptr inbounds i8, ptr %self, i64 OFFSET
  br label %look
look:
  %row = phi ptr [ %table, %entry ], [ %after, %next ], [ %group.end, %passed ],
                 [ %group.rows, %noted ]
  %group = phi ptr [ null, %entry ], [ %group, %next ], [ null, %passed ], [ %row, %noted ]
  %p1 = getelementptr inbounds i8, ptr %row, i64 8
  %p2 = getelementptr inbounds i8, ptr %row, i64 16
  %p3 = getelementptr inbounds i8, ptr %row, i64 24
  %p4 = getelementptr inbounds i8, ptr %row, i64 32
  %after = getelementptr inbounds i8, ptr %row, i64 40
  %what = load i64, ptr %row
  %owner = load ptr, ptr %p1
  %key = load ptr, ptr %p2
  %inner = load ptr, ptr %p3
  %expected = load i64, ptr %p4
  switch i64 %what, label %yes [ i64 1, label %item
                                 i64 2, label %length
                                 i64 3, label %part
                                 i64 4, label %part_length
                                 i64 5, label %list_length
                                 i64 6, label %list_item
                                 i64 7, label %part_values
                                 i64 8, label %group.start
                                 i64 10, label %link ]
item:
  %x = call ptr @PyDict_GetItemWithError(ptr %owner, ptr %key)
  %x.i = ptrtoint ptr %x to i64
  %x.same = icmp eq i64 %x.i, %expected
  br i1 %x.same, label %next, label %no
length:
  %n = call i64 @PyDict_Size(ptr %owner)
  %n.same = icmp eq i64 %n, %expected
  br i1 %n.same, label %next, label %no
part:
  %t = call ptr @PyDict_GetItemWithError(ptr %owner, ptr %key)
  %t.none = icmp eq ptr %t, null
  br i1 %t.none, label %no, label %within
within:
  %y = call ptr @PyDict_GetItemWithError(ptr %t, ptr %inner)
  %y.i = ptrtoint ptr %y to i64
  %y.same = icmp eq i64 %y.i, %expected
  br i1 %y.same, label %next, label %no
part_length:
  %u = call ptr @PyDict_GetItemWithError(ptr %owner, ptr %key)
  %u.none = icmp eq ptr %u, null
  br i1 %u.none, label %no, label %measure
measure:
  %m = call i64 @PyObject_Size(ptr %u)
  %m.same = icmp eq i64 %m, %expected
  br i1 %m.same, label %next, label %no
list_length:
  %l = call i64 @PyList_Size(ptr %owner)
  %l.same = icmp eq i64 %l, %expected
  br i1 %l.same, label %next, label %no
list_item:
  %i = ptrtoint ptr %key to i64
  %z = call ptr @PyList_GetItem(ptr %owner, i64 %i)
  %z.i = ptrtoint ptr %z to i64
  %z.same = icmp eq i64 %z.i, %expected
  br i1 %z.same, label %next, label %no
part_values:
  %values = call ptr @PyDict_GetItemWithError(ptr %owner, ptr %key)
  %values.none = icmp eq ptr %values, null
  br i1 %values.none, label %no, label %kind
kind:  ; a subclass may have an order of its own
  %type.p = getelementptr inbounds i8, ptr %values, i64 TYPE
  %type = load ptr, ptr %type.p
  %is.dict = icmp eq ptr %type, @PyDict_Type
  br i1 %is.dict, label %count, label %no
count:
  %list = inttoptr i64 %expected to ptr
  %many = call i64 @PyList_Size(ptr %list)
  %found = call i64 @PyDict_Size(ptr %values)
  %as.many = icmp eq i64 %many, %found
  store i64 0, ptr %at
  br i1 %as.many, label %each, label %no
each:
  %k = phi i64 [ 0, %count ], [ %k.next, %other ]
  %is.one = call i32 @PyDict_Next(ptr %values, ptr %at, ptr %key.out, ptr %value.out)
  %is.end = icmp eq i32 %is.one, 0
  br i1 %is.end, label %next, label %other
other:
  %v = load ptr, ptr %value.out
  %w = call ptr @PyList_GetItem(ptr %list, i64 %k)
  %k.next = add i64 %k, 1
  %v.same = icmp eq ptr %v, %w
  br i1 %v.same, label %each, label %no
group.start:
  %more = ptrtoint ptr %key to i64
  %end.offset = ptrtoint ptr %inner to i64
  %group.end = getelementptr inbounds i8, ptr %table, i64 %end.offset
  br label %tag
tag:
  %j = phi i64 [ 0, %group.start ], [ %j.next, %tag.same ]
  %tag.row = phi ptr [ %row, %group.start ], [ %tag.row.next, %tag.same ]
  %is.all = icmp ugt i64 %j, %more
  br i1 %is.all, label %passed, label %compare
compare:
  %c.p1 = getelementptr inbounds i8, ptr %tag.row, i64 8
  %c.p4 = getelementptr inbounds i8, ptr %tag.row, i64 32
  %c.owner = load ptr, ptr %c.p1
  %c.tag.p = getelementptr inbounds i8, ptr %c.owner, i64 TAG
  %c.tag = load i64, ptr %c.tag.p
  %c.noted = load i64, ptr %c.p4
  %c.same = icmp eq i64 %c.tag, %c.noted
  br i1 %c.same, label %tag.same, label %note
tag.same:
  %j.next = add i64 %j, 1
  %tag.row.next = getelementptr inbounds i8, ptr %tag.row, i64 40
  br label %tag
passed:
  br label %look
note:
  %h = phi i64 [ 0, %compare ], [ %h.next, %note ]
  %note.row = phi ptr [ %row, %compare ], [ %note.row.next, %note ]
  %h.p1 = getelementptr inbounds i8, ptr %note.row, i64 8
  %h.p4 = getelementptr inbounds i8, ptr %note.row, i64 32
  %h.owner = load ptr, ptr %h.p1
  %h.tag.p = getelementptr inbounds i8, ptr %h.owner, i64 TAG
  %h.tag = load i64, ptr %h.tag.p
  store i64 %h.tag, ptr %h.p4
  %h.next = add i64 %h, 1
  %note.row.next = getelementptr inbounds i8, ptr %note.row, i64 40
  %h.more = icmp ule i64 %h.next, %more
  br i1 %h.more, label %note, label %noted
noted:
  %group.rows = getelementptr inbounds i8, ptr %note.row, i64 40
  br label %look
link:
  %linked = call ptr @PyDict_GetItemWithError(ptr %owner, ptr %key)
  %linked.i = ptrtoint ptr %linked to i64
  %linked.same = icmp eq i64 %linked.i, %expected
  br i1 %linked.same, label %next, label %unlinked
unlinked:
  call void @PyErr_Clear()
  %unlinked.p4 = getelementptr inbounds i8, ptr %group, i64 32
  store i64 0, ptr %unlinked.p4
  br label %next
next:
  br label %look
yes:
  call void @Py_IncRef(ptr @_Py_TrueStruct)
  ret ptr @_Py_TrueStruct
no:
  call void @PyErr_Clear()
  %in.group = icmp ne ptr %group, null
  br i1 %in.group, label %forget, label %false
forget:
  %forget.p4 = getelementptr inbounds i8, ptr %group, i64 32
  store i64 0, ptr %forget.p4
  br label %false
false:
  call void @Py_IncRef(ptr @_Py_FalseStruct)
  ret ptr @_Py_FalseStruct
}

; What rows of five words tell to make, the first at %rows: what to do, and of which object, numbers
; of those in %objects; there are first those that are given, then those that are made.
define internal ptr @gt.make(ptr %rows, ptr %objects) nounwind {
entry:
  br label %look
look:
  %row = phi ptr [ %rows, %entry ], [ %after, %next ]
  %p1 = getelementptr inbounds i8, ptr %row, i64 8
  %p2 = getelementptr inbounds i8, ptr %row, i64 16
  %p3 = getelementptr inbounds i8, ptr %row, i64 24
  %after = getelementptr inbounds i8, ptr %row, i64 40
  %what = load i64, ptr %row
  %number = load i64, ptr %p1
  %second = load i64, ptr %p2
  %third = load i64, ptr %p3
  %second.o = inttoptr i64 %second to ptr
  %third.o = inttoptr i64 %third to ptr
  %object.p = getelementptr inbounds ptr, ptr %objects, i64 %number
  %object = load ptr, ptr %object.p
  %place = getelementptr inbounds i8, ptr %object, i64 %second
  switch i64 %what, label %end [ i64 1, label %new
                                 i64 2, label %put
                                 i64 3, label %copy
                                 i64 4, label %move
                                 i64 5, label %set
                                 i64 6, label %set.made ]
new:
  %made = call ptr @PyType_GenericAlloc(ptr %second.o, i64 0)
  store ptr %made, ptr %object.p
  %made.none = icmp eq ptr %made, null
  br i1 %made.none, label %fail, label %next
put:
  call void @Py_IncRef(ptr %third.o)
  store ptr %third.o, ptr %place
  br label %next
copy:
  %given.p = getelementptr inbounds ptr, ptr %objects, i64 %third
  %given = load ptr, ptr %given.p
  call void @Py_IncRef(ptr %given)
  store ptr %given, ptr %place
  br label %next
move:
  %moved.p = getelementptr inbounds ptr, ptr %objects, i64 %third
  %moved = load ptr, ptr %moved.p
  store ptr %moved, ptr %place
  br label %next
set:
  %set.code = call i32 @PyObject_SetAttr(ptr %object, ptr %second.o, ptr %third.o)
  %set.failed = icmp slt i32 %set.code, 0
  br i1 %set.failed, label %fail, label %next
set.made:
  %value.p = getelementptr inbounds ptr, ptr %objects, i64 %third
  %value = load ptr, ptr %value.p
  %made.code = call i32 @PyObject_SetAttr(ptr %object, ptr %second.o, ptr %value)
  call void @Py_DecRef(ptr %value)
  %made.failed = icmp slt i32 %made.code, 0
  br i1 %made.failed, label %fail, label %next
next:
  br label %look
end:
  ret ptr %object
fail:  ; there is no memory: what was made until here is lost
  ret ptr null
}

; self: a bytes object, in which rows begin at OFFSET. The first says how many arguments there are.
define ptr @gt_made(ptr %self, ptr %args, i64 %count) nounwind {
entry:
  %objects = alloca ptr, i64 MOST, align 64
  %table = getelementptr inbounds i8, ptr %self, i64 OFFSET
  %rows = getelementptr inbounds i8, ptr %table, i64 40
  %expected = load i64, ptr %table
  %fits = icmp eq i64 %count, %expected
  br i1 %fits, label %start, label %wrong
start:
  %bytes = shl i64 %count, 3
  call void @llvm.memcpy.p0.p0.i64(ptr %objects, ptr %args, i64 %bytes, i1 false)
  %result = call ptr @gt.make(ptr %rows, ptr %objects)
  ret ptr %result
wrong:
  call void @PyErr_BadInternalCall()
  ret ptr null
}

; self: as above; the first row: how many arguments, where in the frame the first address goes,
; where that of the output, and the output's size, or 0 where its owner and its address are given.
define ptr @gt_call(ptr %self, ptr %args, i64 %count) nounwind {
entry:
  %objects = alloca ptr, i64 MOST, align 64
  %address.object = getelementptr inbounds ptr, ptr %objects, i64 1
  %table = getelementptr inbounds i8, ptr %self, i64 OFFSET
  %first.p = getelementptr inbounds i8, ptr %table, i64 8
  %output.p = getelementptr inbounds i8, ptr %table, i64 16
  %size.p = getelementptr inbounds i8, ptr %table, i64 24
  %rows = getelementptr inbounds i8, ptr %table, i64 40
  %expected = load i64, ptr %table
  %first = load i64, ptr %first.p
  %output = load i64, ptr %output.p
  %size = load i64, ptr %size.p
  %fits = icmp eq i64 %count, %expected
  br i1 %fits, label %start, label %wrong
start:
  %number = load ptr, ptr %args
  %frame = call ptr @PyLong_AsVoidPtr(ptr %number)
  %output.word = getelementptr inbounds i64, ptr %frame, i64 %output
  %own = icmp eq i64 %size, 0
  br i1 %own, label %given, label %small
given:
  %given.owner.p = getelementptr inbounds ptr, ptr %args, i64 1
  %given.address.p = getelementptr inbounds ptr, ptr %args, i64 2
  %given.owner = load ptr, ptr %given.owner.p
  %given.number = load ptr, ptr %given.address.p
  %given.address = call ptr @PyLong_AsVoidPtr(ptr %given.number)
  call void @Py_IncRef(ptr %given.owner)
  call void @Py_IncRef(ptr %given.number)
  br label %fill
small:
  %more = add i64 %size, ALIGNMENT
  %bytes = call ptr @PyBytes_FromStringAndSize(ptr null, i64 %more)
  %none = icmp eq ptr %bytes, null
  br i1 %none, label %fail, label %align
align:
  %bytes.i = ptrtoint ptr %bytes to i64
  %bytes.begin = add i64 %bytes.i, BEGIN
  %aligned.i = and i64 %bytes.begin, -ALIGNMENT
  %aligned = inttoptr i64 %aligned.i to ptr
  %aligned.number = call ptr @PyLong_FromVoidPtr(ptr %aligned)
  %aligned.none = icmp eq ptr %aligned.number, null
  br i1 %aligned.none, label %fail, label %fill
fill:
  %owner = phi ptr [ %given.owner, %given ], [ %bytes, %align ]
  %address = phi ptr [ %given.address, %given ], [ %aligned, %align ]
  %address.number = phi ptr [ %given.number, %given ], [ %aligned.number, %align ]
  %begin = phi i64 [ 3, %given ], [ 1, %align ]
  store ptr %address, ptr %output.word
  store ptr %owner, ptr %objects
  store ptr %address.number, ptr %address.object
  br label %argument
argument:
  %k = phi i64 [ %begin, %fill ], [ %k.next, %one ]
  %at = phi i64 [ %first, %fill ], [ %at.next, %one ]
  %all = icmp uge i64 %k, %count
  br i1 %all, label %run, label %one
one:
  %one.p = getelementptr inbounds ptr, ptr %args, i64 %k
  %one.number = load ptr, ptr %one.p
  %one.address = call ptr @PyLong_AsVoidPtr(ptr %one.number)
  %one.word = getelementptr inbounds i64, ptr %frame, i64 %at
  store ptr %one.address, ptr %one.word
  %k.next = add i64 %k, 1
  %at.next = add i64 %at, 1
  br label %argument
run:
  %thread = call ptr @PyEval_SaveThread()
  %status = call i32 @gt_run(ptr %frame)
  call void @PyEval_RestoreThread(ptr %thread)
  %good = icmp eq i32 %status, 0
  br i1 %good, label %make, label %failed
make:
  %result = call ptr @gt.make(ptr %rows, ptr %objects)
  call void @Py_DecRef(ptr %owner)
  call void @Py_DecRef(ptr %address.number)
  ret ptr %result
failed:
  call void @Py_DecRef(ptr %owner)
  call void @Py_DecRef(ptr %address.number)
  %wide = sext i32 %status to i64
  %code = call ptr @PyLong_FromLong(i64 %wide)
  ret ptr %code
fail:
  ret ptr null
wrong:
  call void @PyErr_BadInternalCall()
  ret ptr null
}
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
"""
